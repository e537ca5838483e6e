//! The two tables.

use std::{error::Error, hint::black_box};

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{Awq, Clip, Gptq, Hqq, IntWeight, Quantizer, Rescale, Rtn, WeightView};
use half::f16;
use rayon::prelude::*;

use workload::{CHUNK, Settings, inputs, statistics, time, weights};

#[path = "../workload/mod.rs"]
mod workload;

/// Values that one parallel task copies.
const COPIED: usize = 1 << 15;

/// Prints both.
pub fn print() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_args()?;
    methods(settings.repeats)?;
    streams(settings.repeats)
}

/// Time of every method at 3 bits.
fn methods(repeats: usize) -> Result<(), Box<dyn Error>> {
    let shape = [2048, 2048];
    let count = (shape[0] * shape[1]) as f64;
    let weight = weights(shape);
    let stats = statistics(&inputs(shape[1], CHUNK), 1)?;
    let name = ModuleName::new("bench");
    let view = WeightView::new(&name, weight.view())?;

    let (group, bits) = (GroupSize::G128, BitWidth::B3);
    let rtn = Rtn::asymmetric(group);
    let clips = [Clip::Mse, Clip::Weighted, Clip::Correlated].map(|clip| rtn.clip(clip));
    let mut quantizers: Vec<Box<dyn Quantizer>> = vec![Box::new(rtn)];
    quantizers.extend(clips.map(|clipped| -> Box<dyn Quantizer> { Box::new(clipped) }));
    quantizers.push(Box::new(Hqq::new(group)));
    quantizers.push(Box::new(Gptq::asymmetric(group)));
    quantizers.push(Box::new(Gptq::asymmetric(group).clip(Clip::Weighted)));
    let searches = [
        Awq::new(rtn, &[bits]).without_correlations(),
        Awq::new(rtn, &[bits]),
        Awq::new(rtn.clip(Clip::Weighted), &[bits]).without_correlations(),
    ];
    let mut seconds = vec![f64::INFINITY; quantizers.len() + searches.len()];
    for _ in 0..repeats {
        let (of_quantizers, of_searches) = seconds.split_at_mut(quantizers.len());
        for (seconds, quantizer) in of_quantizers.iter_mut().zip(&quantizers) {
            let (result, elapsed) = time(|| quantizer.quantize_at(&view, &stats, bits));
            result?;
            *seconds = seconds.min(elapsed);
        }
        for (seconds, awq) in of_searches.iter_mut().zip(&searches) {
            let (result, elapsed) = time(|| awq.scales(&[view], &stats));
            result?;
            *seconds = seconds.min(elapsed);
        }
    }
    println!("{} x {}, {bits} bits, {} threads\n", shape[0], shape[1], rayon::current_num_threads());
    println!("| method | ms | ns per weight |");
    println!("| --- | ---: | ---: |");
    let methods = quantizers.iter().map(Quantizer::describe);
    let methods = methods.chain(searches.iter().map(|awq| format!("search of {}", awq.describe())));
    for (method, seconds) in methods.zip(seconds) {
        println!("| {method} | {:.1} | {:.2} |", seconds * 1e3, seconds * 1e9 / count);
    }
    Ok(())
}

/// Rates of packing and its ways back, and of copies in memory.
fn streams(repeats: usize) -> Result<(), Box<dyn Error>> {
    let shape = [4096, 8192];
    let count = shape[0] * shape[1];
    let group = GroupSize::G128;
    let name = ModuleName::new("bench");
    let from = vec![1.0_f32; count];
    let mut values = vec![0.0_f32; count];
    let codes: Vec<u8> = (0..count).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
    let weights = (2..=8).filter_map(BitWidth::new).filter(|bits| bits.bits() != 7).map(|bits| {
        let codes: Vec<u8> = codes.iter().map(|code| code & bits.max_code()).collect();
        let scales = vec![f16::ONE; count / group.get()];
        let zeros = vec![1; scales.len()];
        let weight = IntWeight::from_codes(&name, shape, (bits, group), &codes, scales, Some(&zeros))?;
        Ok((weight, codes, zeros))
    });
    let weights = weights.collect::<Result<Vec<_>, gamma_quant::QuantizeError>>()?;

    // Seconds to pack, unpack and decode at every width, to copy, write and get memory.
    let mut seconds = vec![[f64::INFINITY; 3]; weights.len()];
    let mut memory = [f64::INFINITY; 3];
    let least = |seconds: &mut f64, elapsed: f64| *seconds = seconds.min(elapsed);
    for _ in 0..repeats {
        let chunks = || from.par_chunks(COPIED);
        let copy = || {
            values.par_chunks_mut(COPIED).zip(chunks()).for_each(|(to, from)| to.copy_from_slice(from));
        };
        least(&mut memory[0], time(copy).1);
        let fill = || values.par_chunks_mut(COPIED).for_each(|to| to.fill(2.0));
        least(&mut memory[1], time(fill).1);
        let fresh = || {
            let mut fresh = vec![0_u8; count];
            fresh.par_chunks_mut(COPIED).for_each(|to| to.fill(2));
            black_box(fresh);
        };
        least(&mut memory[2], time(fresh).1);
        for ([pack, unpack, decode], (weight, codes, zeros)) in seconds.iter_mut().zip(&weights) {
            let scales = weight.scales().to_vec();
            let layout = (weight.bits(), group);
            let (packed, elapsed) =
                time(|| IntWeight::from_codes(&name, shape, layout, codes, scales, Some(zeros)));
            assert_eq!(packed?, *weight, "packed twice");
            least(pack, elapsed);
            let (unpacked, elapsed) = time(|| weight.unpack_codes());
            assert_eq!(unpacked, *codes, "unpacked");
            least(unpack, elapsed);
            least(decode, time(|| weight.dequantize_into(&mut values)).1);
        }
    }
    let rate = |bytes: usize, seconds: f64| bytes as f64 / seconds * 1e-9;
    println!(
        "\n{} x {}, groups of {group}: 10^9 weights per second, and GB/s read and written\n",
        shape[0], shape[1]
    );
    println!("| bits | pack | GB/s | unpack | GB/s | dequantize | GB/s |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for ((weight, ..), seconds) in weights.iter().zip(seconds) {
        let packed = weight.codes().len();
        let cells = seconds.iter().zip([1, 1, size_of::<f32>()]).map(|(&seconds, unpacked)| {
            format!("{:.1} | {:.0}", rate(count, seconds), rate(packed + count * unpacked, seconds))
        });
        println!("| {} | {} |", weight.bits().bits(), cells.collect::<Vec<_>>().join(" | "));
    }
    let [copy, fill, fresh] = memory;
    println!(
        "\nmemory, GB/s: copy {:.0} (read and written), fill {:.0}, first use of new memory {:.1}",
        rate(8 * count, copy),
        rate(4 * count, fill),
        rate(count, fresh),
    );
    Ok(())
}
