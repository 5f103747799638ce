"""Can guests talk to each other through the machine? Programs for two guests that try, and the host that gives turns.

guest, pages, numbers and kit run inside; host.py sends their text there and compares what was sent with what arrived.
"""
