//! What leaves as an etcd's file comes back from it.
