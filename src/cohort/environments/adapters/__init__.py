"""Adapters: environments of other packages, each an extra of its own. A module an adapter, imported when it is named."""
