"""TMRN on STCN, second stage: DAVIS and YouTube-VOS, from the weights of the first.

    rdejax train tmrn_stcn_video --workdir runs/tmrn_stcn_video \
        --init runs/tmrn_stcn_images --data davis2017:DAVIS youtube-vos:YOUTUBE_VOS

Three frames, gaps of 5 to 25 and back. Or straight from the host's own, --init runs/stcn_stage3.

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.stcn_stage3 import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
