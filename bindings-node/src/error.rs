//! Core's errors as JavaScript's: the kind's code becomes `error.code`.

/// What methods of the native module fail with. `ts/errors.ts` makes a `KpsError` of it.
pub(crate) type Result<T> = std::result::Result<T, napi::Error<&'static str>>;

/// `error` as napi throws it.
pub(crate) fn thrown(error: kps::Error) -> napi::Error<&'static str> {
    napi::Error::new(error.code(), error.message().to_owned())
}

/// A failure of napi itself, which only a program that is being torn down sees.
pub(crate) fn internal(error: napi::Error) -> napi::Error<&'static str> {
    napi::Error::new(kps::ErrorKind::Internal.code(), error.reason.to_string())
}

/// JSON that the face in `ts/` wrote wrong.
pub(crate) fn invalid(error: serde_json::Error) -> napi::Error<&'static str> {
    napi::Error::new(kps::ErrorKind::InvalidArgument.code(), error.to_string())
}
