//! RFC 3339, as orjson writes it.

use std::io::Write;

use pyo3::{ffi, intern, prelude::*};

/// Writes the `datetime.datetime` in quotes: naive without an offset, aware with `+hh:mm`.
pub(super) fn datetime(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let object = value.as_ptr();
    // SAFETY: `value` is a `datetime.datetime` and the C API is imported (`types::datetime_api`).
    let (year, month, day, hour, minute, second, micros) = unsafe {
        (
            ffi::PyDateTime_GET_YEAR(object),
            ffi::PyDateTime_GET_MONTH(object),
            ffi::PyDateTime_GET_DAY(object),
            ffi::PyDateTime_DATE_GET_HOUR(object),
            ffi::PyDateTime_DATE_GET_MINUTE(object),
            ffi::PyDateTime_DATE_GET_SECOND(object),
            ffi::PyDateTime_DATE_GET_MICROSECOND(object),
        )
    };
    let offset = utc_offset(value)?;
    put(out, format_args!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"));
    if micros != 0 {
        put(out, format_args!(".{micros:06}"));
    }
    if let Some(seconds) = offset {
        let sign = if seconds < 0 { '-' } else { '+' };
        let seconds = seconds.unsigned_abs();
        // Old zones have seconds. orjson rounds them into the minutes and carries no further: the
        // minutes may be 60.
        let minutes = seconds / 60 % 60 + u64::from(seconds % 60 >= 30);
        put(out, format_args!("{sign}{:02}:{minutes:02}", seconds / 3600));
    }
    out.push(b'"');
    Ok(())
}

/// Writes the `datetime.date` in quotes.
pub(super) fn date(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) {
    let object = value.as_ptr();
    // SAFETY: as above, for `datetime.date`.
    let (year, month, day) = unsafe {
        (
            ffi::PyDateTime_GET_YEAR(object),
            ffi::PyDateTime_GET_MONTH(object),
            ffi::PyDateTime_GET_DAY(object),
        )
    };
    put(out, format_args!("\"{year:04}-{month:02}-{day:02}\""));
}

/// Writes the `datetime.time` in quotes; `false` for one with a zone, whose offset needs a date.
pub(super) fn time(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if !value.getattr(intern!(value.py(), "tzinfo"))?.is_none() {
        return Ok(false);
    }
    let object = value.as_ptr();
    // SAFETY: as above, for `datetime.time`.
    let (hour, minute, second, micros) = unsafe {
        (
            ffi::PyDateTime_TIME_GET_HOUR(object),
            ffi::PyDateTime_TIME_GET_MINUTE(object),
            ffi::PyDateTime_TIME_GET_SECOND(object),
            ffi::PyDateTime_TIME_GET_MICROSECOND(object),
        )
    };
    put(out, format_args!("\"{hour:02}:{minute:02}:{second:02}"));
    if micros != 0 {
        put(out, format_args!(".{micros:06}"));
    }
    out.push(b'"');
    Ok(true)
}

/// The offset from UTC in seconds; `None` for a naive datetime.
fn utc_offset(value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    let offset = value.call_method0(intern!(value.py(), "utcoffset"))?;
    if offset.is_none() {
        return Ok(None);
    }
    let days: i64 = offset.getattr(intern!(value.py(), "days"))?.extract()?;
    let seconds: i64 = offset.getattr(intern!(value.py(), "seconds"))?.extract()?;
    Ok(Some(days * 86_400 + seconds))
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}
