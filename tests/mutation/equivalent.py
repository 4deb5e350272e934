"""Changes that no test can notice, with the reason: (file, line of source, change) -> why nothing changes."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
}
