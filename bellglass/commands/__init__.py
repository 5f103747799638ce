"""The commands of `bellglass`, and what a terminal shows. cli.py says under which heading each command stands."""
