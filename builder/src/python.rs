//! Python: the index, resolution by uv, wheels, and bytecode.
