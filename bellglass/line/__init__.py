"""Both ends of what goes in and out of a guest: frames, wire, and who answers a guest's chat."""
