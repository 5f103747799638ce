"""The steps of one generation: propose, train, judge, gate, adopt. They receive ports and never open a door."""
