"""Network architectures; one file each. A new one needs that file and one line below."""

__all__ = ["REGISTRY"]

REGISTRY = {
    "mlp": "mtrl.networks.mlp:MLP",
    "multi_head": "mtrl.networks.multi_head:MultiHead",
}
