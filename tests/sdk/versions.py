# SPDX-License-Identifier: Apache-2.0
"""versions.py -- which clients for Python are here, on one line."""
import importlib.metadata
import platform

names = ["openai", "langchain-openai", "langchain-core", "httpx2"]
print(f"Python {platform.python_version()}:", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
