"""The documentation site: what MkDocs asks on its way (hooks.py), notebooks of the pages, and pages made from the code."""
