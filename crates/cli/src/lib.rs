//! Administration of a CommuCat server from the command line.
