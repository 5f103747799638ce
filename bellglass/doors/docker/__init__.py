"""The sealed glass: one Docker container per guest, one attached pipe, nothing else.

engine.py     the Docker SDK, its exceptions, its time-outs; the only importer of `docker`
profile.py    what a container may be, as data; and the check of a running one against it
image.py      the images that guests run in
meter.py      CPU time and out-of-memory kills, read by the host
pipe.py       our end of an attached container, as a byte stream
reaper.py     containers by label: reaping what dead drivers left, killing from outside
glass.py      DockerGlass: opens guests, watches deadlines
selfcheck.py  whether this daemon deserves the word "sealed"
channels/     whether guests can talk to each other through the machine
"""
