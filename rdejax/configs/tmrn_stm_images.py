"""TMRN on STM, first stage: static images.

    rdejax train tmrn_stm_images --workdir runs/tmrn_stm_images \
        --init runs/stm_images --data ECSSD_DIR OTHER_DIRS

Clips of three warps of an image.

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.stm_images import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
