"""TMRN on STCN, first stage: static images, one object.

    rdejax train tmrn_stcn_images --workdir runs/tmrn_stcn_images \
        --init runs/stcn_stage0 --data ECSSD_DIR OTHER_DIRS

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.stcn_stage0 import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
