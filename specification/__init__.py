"""The specification: what staging and every mart hold, in plain Python. Tests compare the models with it.

Read in this order:

1. `landed`: a landed message, and the settings that change rows.
2. `contracts`: the files of `streams/`.
3. `staging`: what each message says by the contract of its stream, and why one is rejected.
4. `marts`: what each mart holds, given the messages that have landed.

Clarity comes before speed here, and nothing of the product is imported. Marts depend only on the set of landed
messages, not on their order, nor on how they were divided into runs. The incremental models must do the same.
"""

from specification.landed import Landed, Settings
from specification.marts import marts

__all__ = ["Landed", "Settings", "marts"]
