//! Linker settings of a Node native module.

fn main() {
    napi_build::setup();
}
