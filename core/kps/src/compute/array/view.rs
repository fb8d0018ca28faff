//! An array's bytes as numbers: not copied if they lie as the processor wants them.

use std::{marker::PhantomData, sync::Arc};

use bytes::Bytes;

use super::{CHUNK, number::Number};
use crate::{
    capability::{Array, Failure},
    compute::{stop::Stop, task::Run},
};

/// The numbers of an array.
#[derive(Debug)]
pub(super) struct View<T> {
    bytes: Bytes,
    /// Instead of them, where they are not aligned.
    copy: Option<Vec<T>>,
    kind: PhantomData<T>,
}

impl<T: bytemuck::Pod> View<T> {
    /// Numbers that were made here.
    pub(super) fn made(numbers: Vec<T>) -> Arc<View<T>> {
        Arc::new(View { bytes: Bytes::new(), copy: Some(numbers), kind: PhantomData })
    }

    /// The numbers of `array`, which are of this kind.
    pub(super) fn of(array: &Array) -> Arc<View<T>> {
        let bytes = array.bytes.clone();
        let copy = match bytemuck::try_cast_slice::<u8, T>(&bytes) {
            Ok(_) => None,
            Err(_) => Some(bytemuck::pod_collect_to_vec(&bytes)),
        };
        Arc::new(View { bytes, copy, kind: PhantomData })
    }

    /// Them.
    pub(super) fn numbers(&self) -> &[T] {
        match &self.copy {
            Some(copy) => copy,
            None => bytemuck::cast_slice(&self.bytes),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers().len()
    }
}

impl<T: Number> View<T> {
    /// Each number as another one.
    pub(super) fn converted<U: bytemuck::Pod + Send>(
        self: &Arc<Self>,
        run: &Run<'_>,
        convert: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Result<Arc<View<U>>, Failure> {
        let parts = self.chunks(run, move |chunk, _| {
            chunk.iter().map(|number| convert(*number)).collect::<Vec<_>>()
        })?;
        Ok(View::made(parts.concat()))
    }

    /// `part` of each chunk, on all cores that are idle; in order.
    pub(super) fn chunks<R: Send + 'static>(
        self: &Arc<Self>,
        run: &Run<'_>,
        part: impl Fn(&[T], &Stop) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, Failure> {
        let view = self.clone();
        run.spread(self.len().div_ceil(CHUNK), move |number, stop| {
            let numbers = view.numbers();
            let begin = number * CHUNK;
            Ok(part(&numbers[begin..numbers.len().min(begin + CHUNK)], stop))
        })
    }
}

/// The bytes of numbers, without a copy.
pub(super) fn bytes<T: bytemuck::Pod + Send + Sync>(numbers: Vec<T>) -> Bytes {
    struct Owned<T>(Vec<T>);
    impl<T: bytemuck::Pod> AsRef<[u8]> for Owned<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Owned(numbers))
}

/// `$body` with `$view` being the numbers of `$array`, of whatever kind they are.
macro_rules! with_view {
    ($array:expr, |$view:ident| $body:expr) => {
        $crate::compute::array::view::with_view!(@ $array, $view, $body, F64 f64, F32 f32, I64 i64,
            I32 i32, I16 i16, I8 i8, U64 u64, U32 u32, U16 u16, U8 u8)
    };
    (@ $array:expr, $view:ident, $body:expr, $($kind:ident $type:ident),*) => {
        match $array.kind {
            $($crate::capability::NumberKind::$kind => {
                let $view: std::sync::Arc<$crate::compute::array::view::View<$type>> =
                    $crate::compute::array::view::View::of(&$array);
                $body
            })*
        }
    };
}
pub(super) use with_view;
