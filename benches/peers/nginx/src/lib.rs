//! Nothing: it is here for the source that it depends on.
