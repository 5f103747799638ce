"""What touches the outside: engines, processes, providers. Only `wiring` opens a door; no door knows another."""
