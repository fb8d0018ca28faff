;; How many letters have to be inserted, removed or replaced to make one word of another.
;;
;; A task for `compute.load` that is given bytes: two words with a line feed between them; it answers the
;; number as text. Letters are bytes here. `levenshtein.wasm` is this text, assembled:
;;
;;     wat2wasm levenshtein.wat
(module
  (memory (export "memory") 1)

  ;; That this is exported says: bytes, not JSON.
  (global (export "kps_bytes") i32 (i32.const 1))

  ;; Answers begin at 0; the input lies at 1024, and after it one row of the table, of 32-bit numbers.
  (data (i32.const 0) "\01give two words with a line feed between them")

  (func (export "kps_alloc") (param $length i32) (result i32)
    (local $pages i32)
    (local.set $pages
      (i32.wrap_i64 (i64.shr_u
        (i64.add (i64.mul (i64.extend_i32_u (local.get $length)) (i64.const 5)) (i64.const 66600))
        (i64.const 16))))
    (if (i32.gt_u (local.get $pages) (memory.size))
      (then
        (if (i32.eq (memory.grow (i32.sub (local.get $pages) (memory.size))) (i32.const -1))
          (then unreachable))))
    (i32.const 1024))

  (func (export "kps_run") (param $a i32) (param $length i32) (result i64)
    (local $b i32) (local $a_end i32) (local $b_end i32) (local $row i32) (local $cell i32)
    (local $i i32) (local $j i32) (local $diagonal i32) (local $above i32) (local $best i32)

    (local.set $b_end (i32.add (local.get $a) (local.get $length)))
    ;; The line feed.
    (local.set $a_end (local.get $a))
    (block $found
      (loop $next
        (if (i32.ge_u (local.get $a_end) (local.get $b_end))
          ;; The sentence at 0, with the byte 1 before it.
          (then (return (i64.const 45))))
        (br_if $found (i32.eq (i32.load8_u (local.get $a_end)) (i32.const 10)))
        (local.set $a_end (i32.add (local.get $a_end) (i32.const 1)))
        (br $next)))
    (local.set $b (i32.add (local.get $a_end) (i32.const 1)))
    (local.set $row (i32.and (i32.add (local.get $b_end) (i32.const 7)) (i32.const -4)))

    ;; Making nothing of the first letters of b takes as many insertions.
    (local.set $j (i32.const 0))
    (loop $fill
      (i32.store
        (i32.add (local.get $row) (i32.shl (local.get $j) (i32.const 2)))
        (local.get $j))
      (local.set $j (i32.add (local.get $j) (i32.const 1)))
      (br_if $fill
        (i32.le_u (i32.add (local.get $b) (local.get $j)) (local.get $b_end))))

    (local.set $i (i32.const 0))
    (block $done
      (loop $letter_of_a
        (br_if $done (i32.ge_u (i32.add (local.get $a) (local.get $i)) (local.get $a_end)))
        (local.set $cell (local.get $row))
        (local.set $diagonal (i32.load (local.get $cell)))
        (local.set $best (i32.add (local.get $i) (i32.const 1)))
        (i32.store (local.get $cell) (local.get $best))
        (local.set $j (local.get $b))
        (block $row_done
          (loop $letter_of_b
            (br_if $row_done (i32.ge_u (local.get $j) (local.get $b_end)))
            (local.set $cell (i32.add (local.get $cell) (i32.const 4)))
            (local.set $above (i32.load (local.get $cell)))
            ;; Insert or remove …
            (local.set $best
              (i32.add
                (select (local.get $best) (local.get $above)
                  (i32.lt_u (local.get $best) (local.get $above)))
                (i32.const 1)))
            ;; … or keep or replace.
            (local.set $diagonal
              (i32.add
                (local.get $diagonal)
                (i32.ne
                  (i32.load8_u (i32.add (local.get $a) (local.get $i)))
                  (i32.load8_u (local.get $j)))))
            (local.set $best
              (select (local.get $best) (local.get $diagonal)
                (i32.lt_u (local.get $best) (local.get $diagonal))))
            (i32.store (local.get $cell) (local.get $best))
            (local.set $diagonal (local.get $above))
            (local.set $j (i32.add (local.get $j) (i32.const 1)))
            (br $letter_of_b)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $letter_of_a)))
    (call $decimal (i32.load
      (i32.add (local.get $row)
        (i32.shl (i32.sub (local.get $b_end) (local.get $b)) (i32.const 2))))))

  ;; The number as text that ends at 1023, and before it the byte 0; where it begins and how long it is.
  (func $decimal (param $number i32) (result i64)
    (local $at i32)
    (local.set $at (i32.const 1023))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $digit (local.get $number)))
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i32.store8 (local.get $at) (i32.const 0))
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
      (i64.extend_i32_u (i32.sub (i32.const 1023) (local.get $at))))))
