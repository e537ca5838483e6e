//! Other implementations, in child processes that answer to lines of text.
//!
//! `PyTorch`'s matrix library takes slow paths on processors of other makers than Intel. There a
//! second process is told otherwise, so that nobody wins by that alone.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ndarray::Array2;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// What the library asks to know whose processor it runs on.
const SHIM: &str = "int mkl_serv_intel_cpu_true(void) { return 1; }\n";

/// A layer on disk, by its name there.
pub struct Layer(String);

impl Layer {
    /// Writes `weight` and `hessian` where workers find them.
    pub fn write(folder: &Path, weight: &Array2<f32>, hessian: &Array2<f32>) -> Result<Self, Box<dyn Error>> {
        let name = format!("{}x{}", weight.nrows(), weight.ncols());
        let bytes = |matrix: &Array2<f32>| matrix.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (w, h) = (bytes(weight), bytes(hessian));
        let tensors = [
            ("weight", TensorView::new(Dtype::F32, weight.shape().to_vec(), &w)?),
            ("hessian", TensorView::new(Dtype::F32, hessian.shape().to_vec(), &h)?),
        ];
        safetensors::serialize_to_file(tensors, None, &folder.join(format!("{name}.safetensors")))?;
        Ok(Self(name))
    }
}

/// Everyone to be compared with, and the folder for what they read and write. Both end with this.
pub struct Rivals {
    folder: PathBuf,
    workers: Vec<Worker>,
    /// Name, worker and its word for the method.
    methods: Vec<(String, usize, String)>,
}

struct Worker {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    complaints: PathBuf,
    /// Of a plain product of matrices, in GFLOP/s.
    peak: f64,
}

impl Rivals {
    /// Starts `[interpreter, script]`. Where that does not work, says why and goes on without.
    pub fn start(python: Option<&[String; 2]>) -> Result<Self, Box<dyn Error>> {
        let folder = env::temp_dir().join(format!("bench_gptq-{}", process::id()));
        fs::create_dir_all(&folder)?;
        let mut rivals = Self { folder, workers: Vec::new(), methods: Vec::new() };
        let Some(python) = python else { return Ok(rivals) };
        if let Err(reason) = rivals.add(python, None) {
            println!("nobody to compare with: `{}` {}: {reason}\n", python[0], python[1]);
        } else if let Some(shim) = shim(&rivals.folder) {
            rivals.add(python, Some(&shim))?;
        }
        Ok(rivals)
    }

    fn add(&mut self, [program, script]: &[String; 2], preload: Option<&Path>) -> Result<(), Box<dyn Error>> {
        let index = self.workers.len();
        let complaints = self.folder.join(format!("stderr-{index}"));
        let mut command = Command::new(program);
        command.arg(script).arg(&self.folder).arg(rayon::current_num_threads().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&complaints)?);
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let mut child = command.spawn()?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".into());
        };
        let replies = BufReader::new(replies);
        let mut worker = Worker { child, requests, replies, complaints, peak: 0.0 };
        let note = if preload.is_some() { ", as on Intel" } else { "" };
        loop {
            let line = worker.reply()?;
            match line.split_once(' ') {
                Some(("has", method)) => {
                    let (word, name) = method.split_once(' ').unwrap_or((method, method));
                    self.methods.push((format!("{name}{note}"), index, word.into()));
                }
                Some(("peak", peak)) => worker.peak = peak.parse()?,
                _ if line == "ready" => break,
                _ => return Err(format!("unexpected answer `{line}`").into()),
            }
        }
        self.workers.push(worker);
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn len(&self) -> usize {
        self.methods.len()
    }

    pub fn name(&self, index: usize) -> &str {
        &self.methods[index].0
    }

    /// GFLOP/s of its plain product.
    pub fn peak(&self, index: usize) -> f64 {
        self.workers[self.methods[index].1].peak
    }

    /// Names and GFLOP/s, once per process.
    pub fn peaks(&self) -> impl Iterator<Item = (&str, f64)> {
        (0..self.workers.len()).filter_map(|worker| {
            let (name, ..) = self.methods.iter().find(|(_, of, _)| *of == worker)?;
            Some((name.as_str(), self.workers[worker].peak))
        })
    }

    /// Seconds for the factor and for the rest, and the decoded weights.
    pub fn run(&mut self, index: usize, layer: &Layer) -> Result<([f64; 2], Array2<f32>), Box<dyn Error>> {
        let (_, worker, method) = &self.methods[index];
        let worker = &mut self.workers[*worker];
        writeln!(worker.requests, "{} {method}", layer.0)?;
        let line = worker.reply()?;
        let mut words = line.split(' ');
        let (Some("done"), Some(factor), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("unexpected answer `{line}`").into());
        };
        let bytes = fs::read(self.folder.join("decoded.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let tensor = tensors.tensor("decoded")?;
        let (values, _) = tensor.data().as_chunks::<4>();
        let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let &[rows, columns] = tensor.shape() else { return Err("not a matrix".into()) };
        Ok(([factor.parse()?, rest.parse()?], Array2::from_shape_vec((rows, columns), values)?))
    }
}

impl Worker {
    /// The next line; if there is none, an error with the last complaint.
    fn reply(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        if self.replies.read_line(&mut line)? > 0 {
            return Ok(line.trim_end().into());
        }
        let complaints = fs::read_to_string(&self.complaints).unwrap_or_default();
        Err(complaints.lines().last().unwrap_or("ended without a word").into())
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        for mut worker in self.workers.drain(..) {
            drop(worker.requests); // the end of its input is the end of its work
            let _ = worker.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A library that calls the processor Intel's, where it is not and a C compiler is at hand.
fn shim(folder: &Path) -> Option<PathBuf> {
    let processor = fs::read_to_string("/proc/cpuinfo").ok()?;
    if !processor.contains("AuthenticAMD") {
        return None;
    }
    let [source, library] = ["shim.c", "shim.so"].map(|name| folder.join(name));
    fs::write(&source, SHIM).ok()?;
    let mut cc = Command::new("cc");
    let status = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().ok()?;
    status.success().then_some(library)
}
