"""The methods whose decoder is a network, by the name that ``--method`` takes."""

from __future__ import annotations

from align.adaptation.contract import Method
from align.adaptation.finetune import FineTuning
from align.adaptation.front import LinearFront
from align.adaptation.lora import Lora
from align.adaptation.mindbridge import MindBridge
from align.adaptation.skip_lora import SkipLora
from align.adaptation.sttm import ShallowAdapter
from align.adaptation.transfer import Transfer

NETWORK_METHODS: dict[str, Method] = {
    method.name: method
    for method in (LinearFront(), FineTuning(), Lora(), SkipLora(), Transfer(), MindBridge(), ShallowAdapter())
}
