"""Export: trained models as files that other programs read."""

from hilbound.export.files import Exported, export_run
from hilbound.export.pretrained import Pretrained, from_pretrained, save_pretrained

__all__ = ["Exported", "Pretrained", "export_run", "from_pretrained", "save_pretrained"]
