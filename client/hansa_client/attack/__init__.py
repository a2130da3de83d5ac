"""Attacks of a member on its own trainer, with units that are nobody's: how much does one run give away?

`gradients` attacks the trainer itself, through a model whose gradients are the canaries; `units` attacks the agreement's
model with generated records. Both train with the very classes of a run, and hold the outcome against what a run is
charged as (`hansa.privacy.attack`). No data of a member are read here.
"""

from hansa_client.attack.attacking import Attack, attack_gradients, attack_units, claim_of
from hansa_client.attack.guessing import Coins, right_guesses

__all__ = ["Attack", "Coins", "attack_gradients", "attack_units", "claim_of", "right_guesses"]
