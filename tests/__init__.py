"""A package by name: torch-fidelity installs another top-level `tests`, which would be found before a nameless one."""
