"""TMRN on XMem, second stage: DAVIS and YouTube-VOS, from the weights of the first.

    rdejax train tmrn_xmem_video --workdir runs/tmrn_xmem_video \
        --init runs/tmrn_xmem_images --data davis2017:DAVIS youtube-vos:YOUTUBE_VOS

Clips of eight frames, of which a read sees at most three. TMRN takes the place of the working
memory; there is no long-term memory. Or straight from the host's own, --init runs/xmem_stage3.

The recipe of the host, which the paper leaves as it is; see `with_tmrn`.
"""

from rdejax.configs.xmem_stage3 import config as host
from rdejax.train.recipes import with_tmrn

config = with_tmrn(host)
