//! `--gpu`: the devices of so many graphics processors. The libraries that speak to them are the formation's own, or bound.

use std::path::{Path, PathBuf};

use executor::Device;

use super::bad;
use crate::error::{Failure, Result, code};

/// What all cards of NVIDIA share.
const OF_EVERY_NVIDIA: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// The devices of `count` processors, a number or `all`, below `/dev`.
pub fn devices(count: &str, dev: &Path) -> Result<Vec<Device>> {
    let wanted = match count {
        "all" => None,
        text => Some(
            text.parse::<usize>()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| bad("--gpu", text, "how many, or `all`,"))?,
        ),
    };
    let nvidia = numbered(dev, "nvidia");
    let (mut cards, shared) = match nvidia.is_empty() {
        false => (nvidia, OF_EVERY_NVIDIA.map(|name| dev.join(name)).to_vec()),
        true => (numbered(&dev.join("dri"), "renderD"), vec![dev.join("kfd")]),
    };
    if cards.is_empty() || wanted.is_some_and(|wanted| cards.len() < wanted) {
        let headline = format!("--gpu {count}: this machine shows {} graphics processors", cards.len());
        return Err(Failure::new(code::NOT_FOUND, headline)
            .hint("/dev/nvidia0 is NVIDIA's first, /dev/dri/renderD128 that of others: their driver makes them"));
    }
    cards.truncate(wanted.unwrap_or(usize::MAX));
    cards.extend(shared.into_iter().filter(|path| path.exists()));
    Ok(cards.into_iter().map(|path| Device { target: path.clone(), source: path }).collect())
}

/// The files of a directory that are called so with a number behind, in the order of that.
fn numbered(directory: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_prefix(name)?.parse().ok()?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_by_their_devices() {
        let directory = tempfile::tempdir().unwrap();
        let dev = directory.path();
        let names = |count: &str| -> Result<Vec<String>> {
            let name = |device: Device| device.source.strip_prefix(dev).unwrap().display().to_string();
            Ok(devices(count, dev)?.into_iter().map(name).collect())
        };
        assert!(devices("all", dev).is_err() && devices("1", dev).is_err());
        std::fs::create_dir(dev.join("dri")).unwrap();
        for name in ["dri/renderD129", "dri/renderD128", "dri/card0", "kfd"] {
            std::fs::write(dev.join(name), "").unwrap();
        }
        assert_eq!(names("1").unwrap(), ["dri/renderD128", "kfd"]);
        assert_eq!(names("all").unwrap(), ["dri/renderD128", "dri/renderD129", "kfd"]);
        for name in ["nvidia10", "nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-caps"] {
            std::fs::write(dev.join(name), "").unwrap();
        }
        assert_eq!(names("2").unwrap(), ["nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm"]);
        assert_eq!(names("all").unwrap().len(), 5);
        for bad in ["4", "0", "-1", "many"] {
            assert!(devices(bad, dev).is_err(), "{bad}");
        }
    }
}
