"""The glass that is only a process, for where no engine is at hand. It is no sandbox: see glass.py.

glass.py      ProcessGlass: opens guests, keeps their folders, removes what dead drivers left
nursery.py    Linux: guests as forks of a process that has imported torch once
"""

from bellglass.doors.process_glass.glass import ProcessGlass, SocketStream, remove_tree, require_gpu

__all__ = ["ProcessGlass", "SocketStream", "remove_tree", "require_gpu"]
