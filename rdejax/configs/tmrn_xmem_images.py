"""TMRN on XMem, first stage: static images, one object.

    rdejax train tmrn_xmem_images --workdir runs/tmrn_xmem_images \
        --init runs/xmem_stage0 --data ECSSD_DIR OTHER_DIRS

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.xmem_stage0 import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
