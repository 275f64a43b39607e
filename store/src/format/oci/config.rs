//! The image configuration: what OCI says of how an image is run, and what of it is a formation's launch settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::{Annotations, Digest, Platform, nullable, to_json};
use crate::digest::{from_hex, to_hex};
use crate::format::Dropped;
use crate::formation::Port;
use crate::{Formation, Launch};

/// The label that carries the formation's encoding, in hexadecimal: labels live through every tool that copies an image.
pub const FORMATION_LABEL: &str = "forge.formation";

/// When everything was made: artifacts know no clock.
pub const CREATED: &str = "1980-01-02T00:00:00Z";

/// An image configuration (`application/vnd.oci.image.config.v1+json`); Docker's has the same fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// As Go names it.
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// Of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How it is run.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// Digests of the layers before they were compressed.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it came about, for people.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The layers, as content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// How one layer came about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How an image is run. Go writes `null` for what is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `uid`, `user:group`, …
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `PORT/tcp` and `PORT/udp`, each with an empty object.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=VALUE`
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What comes first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command, or arguments of the entrypoint.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// By the rules of annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Annotations::is_empty")]
    pub labels: Annotations,
    /// By name.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Storage belongs to a run and not to an image: read to say that it was left out.
    #[serde(default, deserialize_with = "nullable", skip_serializing)]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Docker's alone: read to say that it was left out.
    #[serde(default, skip_serializing)]
    pub healthcheck: Option<serde_json::Value>,
}

/// `{}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// The configuration of a formation whose layers have these digests and labels.
pub fn of_formation(formation: &Formation, layers: &[(Digest, String)]) -> Vec<u8> {
    let platform = Platform::parse(&formation.platform);
    let mut run = run_config(&formation.launch);
    run.labels.insert(FORMATION_LABEL.to_owned(), to_hex(&formation.encode()));
    let history = |(_, label): &(Digest, String)| History {
        created: Some(CREATED.to_owned()),
        created_by: Some(label.clone()),
        empty_layer: false,
    };
    to_json(&ImageConfig {
        created: Some(CREATED.to_owned()),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config: run,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|(digest, _)| *digest).collect() },
        history: layers.iter().map(history).collect(),
    })
}

/// Launch settings as OCI has them. JSON is UTF-8: of what is not, others see a stand-in; the label has it as it is.
fn run_config(launch: &Launch) -> RunConfig {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = |words: &[Vec<u8>]| words.iter().map(|word| text(word)).collect();
    RunConfig {
        user: launch.user.as_ref().map(ToString::to_string).unwrap_or_default(),
        exposed_ports: launch.ports.iter().map(|port| (port.to_string(), Empty {})).collect(),
        env: launch.environment.iter().map(|(name, value)| text(&[name.as_slice(), b"=", value].concat())).collect(),
        entrypoint: words(&launch.entrypoint),
        cmd: words(&launch.command),
        working_dir: launch.directory.as_deref().map(text).unwrap_or_default(),
        labels: launch.labels.clone(),
        stop_signal: launch.stop_signal.map(|signal| signal.to_string()).unwrap_or_default(),
        ..RunConfig::default()
    }
}

impl ImageConfig {
    /// Where it runs.
    pub fn platform(&self) -> Platform {
        Platform { architecture: self.architecture.clone(), os: self.os.clone(), variant: self.variant.clone() }
    }

    /// The launch settings; what they cannot say is noted.
    pub fn launch(&self, dropped: &mut Dropped) -> Launch {
        let run = &self.config;
        let mut launch = Launch::default();
        let words = |words: &[String]| words.iter().map(|word| word.clone().into_bytes()).collect::<Vec<_>>();
        (launch.entrypoint, launch.command) = (words(&run.entrypoint), words(&run.cmd));
        // No program can be given one (`execve(2)`), and half a command is another command.
        for words in [&mut launch.entrypoint, &mut launch.command] {
            if let Some(word) = words.iter().find(|word| word.contains(&0)).cloned() {
                dropped.add("command with a NUL", &word);
                words.clear();
            }
        }
        for variable in &run.env {
            match variable.split_once('=') {
                _ if variable.contains('\0') => dropped.add("variable with a NUL", variable.as_bytes()),
                Some((name, value)) if !name.is_empty() => _ = launch.environment.insert(name.into(), value.into()),
                _ => dropped.add("variable without a value", variable.as_bytes()),
            }
        }
        if run.working_dir.contains('\0') {
            dropped.add("working directory with a NUL", run.working_dir.as_bytes());
        } else if !run.working_dir.is_empty() {
            let slash = if run.working_dir.starts_with('/') { "" } else { "/" };
            launch.directory = Some(format!("{slash}{}", run.working_dir).into_bytes());
        }
        if !run.user.is_empty() {
            launch.user = run.user.parse().ok();
            if launch.user.is_none() {
                dropped.add("user that none can have", run.user.as_bytes());
            }
        }
        for port in run.exposed_ports.keys() {
            match port.parse::<Port>() {
                Ok(port) => _ = launch.ports.insert(port),
                Err(_) => dropped.add("port that is neither TCP nor UDP", port.as_bytes()),
            }
        }
        if !run.stop_signal.is_empty() {
            launch.stop_signal = run.stop_signal.parse().ok();
            if launch.stop_signal.is_none() {
                dropped.add("unknown stop signal", run.stop_signal.as_bytes());
            }
        }
        launch.labels = run
            .labels
            .iter()
            .filter(|(key, _)| !key.is_empty() && *key != FORMATION_LABEL)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        run.volumes.keys().for_each(|path| dropped.add("volume", path.as_bytes()));
        if run.healthcheck.as_ref().is_some_and(|check| !check.is_null()) {
            dropped.add("health check", b"");
        }
        launch
    }

    /// The formation whose encoding it carries, if all else that it says is what that formation says: an image that was made
    /// from ours inherits the label.
    pub fn formation(&self) -> Option<Formation> {
        let encoded = from_hex(self.config.labels.get(FORMATION_LABEL)?)?;
        let formation = Formation::decode(&encoded).ok()?;
        let mut said = self.config.clone();
        said.labels.remove(FORMATION_LABEL);
        let mut expected = run_config(&formation.launch);
        expected.labels.remove(FORMATION_LABEL);
        // The order of variables is nobody's.
        said.env.sort();
        expected.env.sort();
        let agrees = said == expected && self.platform().fits(&Platform::parse(&formation.platform));
        agrees.then_some(formation)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Tree;

    fn formation() -> Formation {
        let launch = Launch {
            entrypoint: vec![b"/entry".to_vec()],
            command: vec![b"a b".to_vec(), b"".to_vec()],
            environment: BTreeMap::from([(b"A".to_vec(), b"=1\n".to_vec()), (b"B".to_vec(), b"".to_vec())]),
            directory: Some(b"/app".to_vec()),
            user: Some("web:adm".parse().unwrap()),
            ports: BTreeSet::from(["80", "53/udp"].map(|port| port.parse().unwrap())),
            stop_signal: Some("SIGRTMIN+3".parse().unwrap()),
            labels: BTreeMap::from([("org.example".to_owned(), "söme".to_owned())]),
            ..Launch::default()
        };
        let (name, version, variant) = ("hello".to_owned(), "1".to_owned(), String::new());
        Formation { name, version, variant, platform: "linux/arm64/v8".to_owned(), root: Tree::empty().id(), launch }
    }

    #[test]
    fn a_configuration_says_what_the_formation_says() {
        let formation = formation();
        let bytes = of_formation(&formation, &[(Digest::of(b""), "layer".to_owned())]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        for part in [
            r#""architecture":"arm64","os":"linux","variant":"v8","config":{"User":"web:adm","ExposedPorts":{"53/udp":{},"80/tcp":{}},"#,
            r#""Env":["A==1\n","B="],"Entrypoint":["/entry"],"Cmd":["a b",""],"WorkingDir":"/app","Labels":{"forge.formation":""#,
            r#""org.example":"söme"},"StopSignal":"SIGRTMIN+3"},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0"#,
        ] {
            assert!(text.contains(part), "{text}");
        }
        let config: ImageConfig = serde_json::from_slice(&bytes).unwrap();
        let mut dropped = Dropped::default();
        assert_eq!(config.launch(&mut dropped), formation.launch);
        assert_eq!((config.formation(), dropped), (Some(formation), Dropped::default()));
    }

    #[test]
    fn a_label_is_not_believed_when_the_rest_says_otherwise() {
        let bytes = of_formation(&formation(), &[]);
        let config: ImageConfig = serde_json::from_slice(&bytes).unwrap();
        let changes: [fn(&mut ImageConfig); 6] = [
            |config| config.config.env.push("C=3".to_owned()),
            |config| config.config.user.clear(),
            |config| config.config.cmd.clear(),
            |config| config.architecture = "amd64".to_owned(),
            |config| _ = config.config.labels.insert("more".to_owned(), String::new()),
            |config| _ = config.config.labels.insert(FORMATION_LABEL.to_owned(), "00".to_owned()),
        ];
        for change in changes {
            let mut changed = config.clone();
            change(&mut changed);
            assert_eq!(changed.formation(), None);
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"a b","Env":["PATH=/bin","ODD"],"Cmd":null,"Entrypoint":["x"],
            "WorkingDir":"app","ExposedPorts":{"80":{},"132/sctp":{}},"Labels":{"":"x","k":"v"},"StopSignal":"9","Volumes":{"/data":{}},
            "Healthcheck":{"Test":["CMD"]},"OnBuild":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let mut dropped = Dropped::default();
        let launch = config.launch(&mut dropped);
        assert_eq!(launch.directory.as_deref(), Some(&b"/app"[..]));
        assert_eq!(launch.stop_signal.unwrap().to_string(), "SIGKILL");
        assert_eq!(launch.ports.len(), 1);
        assert_eq!(launch.labels.len(), 1);
        let kinds: Vec<&str> = dropped.0.keys().map(String::as_str).collect();
        let expected = [
            "health check",
            "port that is neither TCP nor UDP",
            "user that none can have",
            "variable without a value",
            "volume",
        ];
        assert_eq!(kinds, expected);
    }

    /// A program can be given no NUL: what has one could be imported, but never run.
    #[test]
    fn settings_that_no_program_can_be_given_are_left_out() {
        let text =
            r#"{"config":{"Env":["A=\u0000","B=1"],"Cmd":["x","y\u0000"],"Entrypoint":["x"],"WorkingDir":"a\u0000b"}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let mut dropped = Dropped::default();
        let launch = config.launch(&mut dropped);
        assert_eq!((launch.entrypoint, launch.command), (vec![b"x".to_vec()], Vec::new()));
        assert_eq!((launch.environment.len(), launch.directory), (1, None));
        let kinds: Vec<&str> = dropped.0.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["command with a NUL", "variable with a NUL", "working directory with a NUL"]);
    }

    #[test]
    fn what_is_not_text_is_shown_as_well_as_can_be_and_kept_exactly() {
        let mut formation = formation();
        formation.launch.command.push(vec![b'x', 0xff]);
        let config: ImageConfig = serde_json::from_slice(&of_formation(&formation, &[])).unwrap();
        assert_eq!(config.config.cmd.last().unwrap(), "x\u{fffd}");
        assert_eq!(config.formation(), Some(formation));
    }
}
