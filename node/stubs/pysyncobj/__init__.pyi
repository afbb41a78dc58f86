# SPDX-License-Identifier: Apache-2.0
# Types of PySyncObj 0.3.17, as far as an adapter of it needs them. It ships
# none. Written from its source; the attributes with mangled names are private
# there, and declared here because our adapter overrides or sets them: see
# `sparecode_node/replication/DESIGN.md`. Aliases of types (`Entry`, `Message`,
# ...) exist here only: import them under `if TYPE_CHECKING:`.

from .config import FAIL_REASON as FAIL_REASON
from .config import SERIALIZER_STATE as SERIALIZER_STATE
from .config import SyncObjConf as SyncObjConf
from .journal import createJournal as createJournal
from .syncobj import _COMMAND_TYPE as _COMMAND_TYPE
from .syncobj import _RAFT_STATE as _RAFT_STATE
from .syncobj import SyncObj as SyncObj
from .syncobj import SyncObjException as SyncObjException
