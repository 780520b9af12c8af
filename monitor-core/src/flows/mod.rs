//! TCP flows: which segment belongs to which connection, who is the server, and the bytes in order.

pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod stream;
pub(crate) mod table;
