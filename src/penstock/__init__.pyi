from penstock.config import BadConfig as BadConfig
from penstock.config import Config as Config
from penstock.embedding import Generation as Generation
from penstock.embedding import Penstock as Penstock
from penstock.types.errors import PenstockError as PenstockError

__version__: str
__all__ = ["BadConfig", "Config", "Generation", "Penstock", "PenstockError", "__version__"]
