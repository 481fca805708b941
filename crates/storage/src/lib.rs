//! Durable state of a CommuCat server: queues, groups, devices, keys.
