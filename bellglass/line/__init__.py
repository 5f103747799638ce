"""The host's end of a guest's pipe: frames, caps, threads; guests started ahead; and the gateway, for its chat."""
