"""Reference material that shares no code with `revode`: oracles, vectors, adapters, benchmarks."""
