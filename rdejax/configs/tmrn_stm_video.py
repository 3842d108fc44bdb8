"""TMRN on STM, second stage: DAVIS and YouTube-VOS, from the weights of the first.

    rdejax train tmrn_stm_video --workdir runs/tmrn_stm_video \
        --init runs/tmrn_stm_images --data davis2017:DAVIS youtube-vos:YOUTUBE_VOS

Or straight from the host's own, --init runs/stm_video.

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.stm_video import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
