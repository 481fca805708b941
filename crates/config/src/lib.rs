//! Configuration of a CommuCat server, parsed once into checked types.
