"""The commands of `bellglass`, a file for each group of `--help`, and what a terminal shows."""
