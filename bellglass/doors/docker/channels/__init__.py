"""Can guests talk to each other through the machine? Programs for two guests that try, and the host that gives turns.

guest kit pages numbers counters timing    run inside: the attack, and what it needs
host                                       the ways, as a table; sends words, compares what was sent and what arrived
meeting bare                               how the two guests are opened; profiles with and without their defences
check                                      the short form, for `doctor`
"""

from bellglass.doors.docker.channels.check import check as check
