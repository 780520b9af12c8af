//! How state lies in a snapshot: fields by name, so that one which is added later has its default.

use std::ops::RangeInclusive;

/// A number that is not one, or beyond what it can be, is taken for `otherwise`.
pub(crate) fn mend(value: &mut f32, range: RangeInclusive<f32>, otherwise: f32) {
    if !range.contains(value) {
        *value = otherwise;
    }
}

/// A table whose length may differ between versions: what is missing is the default, what is too
/// much is left out.
pub(crate) mod array {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq};

    pub(crate) fn serialize<S: Serializer, T: Serialize, const N: usize>(
        values: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(N))?;
        for value in values {
            seq.serialize_element(value)?;
        }
        seq.end()
    }

    pub(crate) fn deserialize<'de, D, T, const N: usize>(from: D) -> Result<[T; N], D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de> + Default + Copy,
    {
        struct Array<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default + Copy, const N: usize> de::Visitor<'de> for Array<T, N> {
            type Value = [T; N];
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{N} values")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[T; N], A::Error> {
                let mut values = [T::default(); N];
                for value in &mut values {
                    match seq.next_element()? {
                        Some(known) => *value = known,
                        None => return Ok(values),
                    }
                }
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(values)
            }
        }
        from.deserialize_seq(Array(std::marker::PhantomData))
    }
}
