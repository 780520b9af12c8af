//! Case folders and live tests.
