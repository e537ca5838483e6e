use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::IntWeight;
use half::f16;
use rayon::prelude::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64()
        })
        .fold(9e9, f64::min)
}
fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let shape = [4096, 8192];
    let n = shape[0] * shape[1];
    let src = vec![1.5_f32; n];
    let mut dst = vec![0_f32; n];
    let t = best(|| {
        dst.par_chunks_mut(1 << 15).zip(src.par_chunks(1 << 15)).for_each(|(d, s)| d.copy_from_slice(s))
    });
    println!("copy {:.1} GB/s moved", 8.0 * n as f64 / t * 1e-9);
    let t = best(|| dst.par_chunks_mut(1 << 15).for_each(|d| d.fill(2.0)));
    println!("fill {:.1} GB/s", 4.0 * n as f64 / t * 1e-9);
    let t = best(|| {
        std::hint::black_box(vec![1u8; n]);
    });
    println!("fresh bytes {:.1} GB/s", n as f64 / t * 1e-9);
    let name = ModuleName::new("m");
    for b in 2..=8 {
        let bits = BitWidth::new(b).unwrap();
        let codes: Vec<u8> = (0..n).map(|i| ((i * 2654435761usize) >> 13) as u8 & bits.max_code()).collect();
        let groups = n / 128;
        let scales = vec![f16::from_f32(0.01); groups];
        let zeros = vec![1u8; groups];
        let mut w = None;
        let p = best(|| {
            w = Some(
                IntWeight::from_codes(
                    &name,
                    shape,
                    (bits, GroupSize::G128),
                    &codes,
                    scales.clone(),
                    Some(&zeros),
                )
                .unwrap(),
            )
        });
        let w = w.unwrap();
        let u = best(|| {
            std::hint::black_box(w.unpack_codes());
        });
        let d = best(|| w.dequantize_into(&mut dst));
        let bytes = n as f64 * f64::from(b) / 8.0;
        println!(
            "{b}: pack {:.2} Gw/s {:.1} GB/s | unpack {:.2} Gw/s {:.1} GB/s | deq {:.2} Gw/s {:.1} GB/s",
            n as f64 / p * 1e-9,
            (n as f64 + bytes) / p * 1e-9,
            n as f64 / u * 1e-9,
            (n as f64 + bytes) / u * 1e-9,
            n as f64 / d * 1e-9,
            (4.0 * n as f64 + bytes) / d * 1e-9
        );
    }
}
