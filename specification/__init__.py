"""The definition of every mart in plain Python: the specification, and a second opinion on the SQL.

Read in this order:

1. `landed`: what comes in (a landed message) and the settings that change rows.
2. `contracts`: the files of `streams/`, as the rules need them.
3. `staging`: what each message says by the contract of its stream, and why one is rejected.
4. `marts`: what each mart holds, given the messages that have landed.

Nothing here is fast or clever. Marts depend on the set of landed messages alone, not on the order of the list, nor on
how the messages were cut into runs: that is what the incremental models are held to.
"""

from specification.landed import Landed, Settings
from specification.marts import marts

__all__ = ["Landed", "Settings", "marts"]
