//! How long the points of a picture of the Mandelbrot set stay near: for each number of steps, how many
//! points leave after so many.
//!
//! A task for `compute.load` that is given JSON, `{"width": 640, "height": 480, "steps": 100}`, and answers
//! `{"leave": [n, …], "stay": n}`. To build it:
//!
//! ```text
//! rustc --edition 2024 --target wasm32-unknown-unknown --crate-type cdylib -C opt-level=3 -C panic=abort \
//!     -C strip=symbols mandelbrot.rs
//! ```

use std::fmt::Write;

/// Where kps puts the input.
#[unsafe(no_mangle)]
pub extern "C" fn kps_alloc(length: usize) -> *mut u8 {
    Box::leak(vec![0; length].into_boxed_slice()).as_mut_ptr()
}

/// Answers where the output is, and how long.
///
/// # Safety
/// kps calls it once, with what `kps_alloc` answered and as many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kps_run(input: *const u8, length: usize) -> u64 {
    // SAFETY: see above.
    let input = unsafe { std::slice::from_raw_parts(input, length) };
    let output = match picture(&String::from_utf8_lossy(input)) {
        Ok(result) => format!(r#"{{"result":{result}}}"#),
        Err(message) => {
            format!(r#"{{"error":{{"code":"invalid_payload","message":"{message}"}}}}"#)
        }
    };
    let output = output.leak();
    ((output.as_ptr() as u64) << 32) | output.len() as u64
}

fn picture(input: &str) -> Result<String, String> {
    let (width, height) = (number(input, "width")?, number(input, "height")?);
    let steps = number(input, "steps")?;
    let mut leave = vec![0u32; steps as usize + 1];
    for y in 0..height {
        for x in 0..width {
            let real = f64::from(x) / f64::from(width) * 3.0 - 2.0;
            let imaginary = f64::from(y) / f64::from(height) * 2.0 - 1.0;
            leave[stays(real, imaginary, steps) as usize] += 1;
        }
    }
    let stay = leave.pop().unwrap_or(0);
    let mut result = String::from(r#"{"leave":["#);
    for (step, count) in leave.iter().enumerate() {
        let comma = if step == 0 { "" } else { "," };
        write!(result, "{comma}{count}").map_err(|error| error.to_string())?;
    }
    write!(result, r#"],"stay":{stay}}}"#).map_err(|error| error.to_string())?;
    Ok(result)
}

/// Steps until the point is gone, at most `steps`.
fn stays(real: f64, imaginary: f64, steps: u32) -> u32 {
    let (mut x, mut y) = (0.0, 0.0);
    (0..steps)
        .find(|_| {
            (x, y) = (x * x - y * y + real, 2.0 * x * y + imaginary);
            x * x + y * y > 4.0
        })
        .unwrap_or(steps)
}

/// The member `name` of the object, a whole number from 1: enough JSON for this module.
fn number(json: &str, name: &str) -> Result<u32, String> {
    let after = json.split_once(&format!("\"{name}\"")).map(|(_, after)| after);
    let value = after.and_then(|after| after.trim_start().strip_prefix(':')).unwrap_or("");
    let digits = value.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    match digits[..end].parse() {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err(format!("{name} is a whole number from 1 to 10000")),
    }
}
