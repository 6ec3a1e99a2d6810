//! What the command line says of itself, and to shells.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::Folder;

#[test]
fn called_as_a_plugin_it_says_how_to_call_it() {
    let folder = Folder::new();
    let plugin = folder.at("kubectl-nanoseg");
    symlink(env!("CARGO_BIN_EXE_nanoseg"), &plugin).unwrap();
    for (program, usage) in [
        (plugin.as_os_str(), "Usage: kubectl nanoseg reach"),
        (env!("CARGO_BIN_EXE_nanoseg").as_ref(), "Usage: nanoseg reach"),
    ] {
        let output = Command::new(program).args(["reach", "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(usage), "{help}");
        assert!(!help.contains('\u{1b}'), "no colour where nobody looks: {help}");
    }
}

#[test]
fn kubectl_is_told_what_completes() {
    let folder = Folder::new();
    let program = folder.at("kubectl_complete-nanoseg");
    symlink(env!("CARGO_BIN_EXE_nanoseg"), &program).unwrap();
    let output = Command::new(program).args(["status", "-o", "ya"]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "yaml\tA stream of YAML documents\n:4\n"
    );
}

#[test]
fn shells_take_what_completes_for_them() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = folder.run(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("reach"), "{shell}");
        folder.write(shell, ran.out);
    }
    let checked = Command::new("bash").arg("-n").arg(folder.at("bash")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// What a command prints on a terminal of so many columns.
fn on_a_terminal(folder: &Folder, columns: u16, variables: &[(&str, &str)], arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_nanoseg");
    let script = format!("stty cols {columns} && exec {program} {arguments}");
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &script, "/dev/null"])
        .current_dir(folder.at(""))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn a_terminal_gets_what_fits_and_colours_unless_nobody_wants_them() {
    let folder = Folder::new();
    let flow = super::question(&super::pod("web-0"), &super::pod("db-0"), 22, "TCP");
    folder.write("f.jsonl", flow);
    let graph = "graph --cluster c.yaml --flows f.jsonl";
    let audit = "audit --cluster c.yaml --flows f.jsonl";

    let wide = on_a_terminal(&folder, 200, &[("NO_COLOR", "1")], graph);
    let plain = folder.run(&graph.split(' ').collect::<Vec<_>>());
    assert_eq!(wide, plain.out, "where there is room, nothing is cut");
    let narrow = on_a_terminal(&folder, 60, &[("NO_COLOR", "1")], graph);
    assert!(!narrow.contains('\u{1b}'), "{narrow:?}");
    assert!(narrow.contains('…'), "{narrow}");
    for line in narrow.lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }

    let coloured = on_a_terminal(&folder, 100, &[], audit);
    assert!(coloured.contains("\u{1b}[31mdenied\u{1b}[0m: "), "{coloured:?}");
    for variables in [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")]] {
        let plain = on_a_terminal(&folder, 100, variables, audit);
        assert!(
            plain.contains("denied: ") && !plain.contains('\u{1b}'),
            "{variables:?}: {plain:?}"
        );
    }
    let piped = folder.run(&audit.split(' ').collect::<Vec<_>>());
    assert!(
        piped.out.contains("denied: ") && !piped.out.contains('\u{1b}'),
        "{}",
        piped.out
    );
}

/// Has a command work on so much that it lasts, and demands what is shown of it on a terminal, and nothing elsewhere.
fn shows_how_far_it_is(folder: &Folder, make: impl Fn(usize), some: usize, command: &str, words: [&str; 3]) {
    // Doubled until it lasts: nobody knows how fast this machine is.
    let mut count = some;
    let shown = loop {
        make(count);
        let shown = on_a_terminal(folder, 120, &[("NO_COLOR", "1")], command);
        if shown.contains(words[0]) || count > 30 * some {
            break shown;
        }
        count *= 2;
    };
    for word in words {
        assert!(shown.contains(word), "{count}: {word}: {shown:?}");
    }
    let piped = folder.run(&command.split(' ').collect::<Vec<_>>());
    assert_eq!((piped.code, piped.err.as_str()), (Some(0), ""), "{command}");
    let moved = shown.strip_suffix(&piped.out).unwrap();
    assert!(moved.ends_with("\u{1b}[2K"), "nothing is left of what moved: {moved:?}");
}

#[test]
fn long_work_says_on_a_terminal_how_far_it_is_and_nowhere_else() {
    let folder = Folder::new();
    let flow = super::question(&super::pod("web-0"), &super::pod("db-0"), 5432, "TCP") + "\n";
    std::fs::create_dir(folder.at("m")).unwrap();
    folder.write("f.jsonl", &flow);
    shows_how_far_it_is(
        &folder,
        |count| folder.write("many.jsonl", flow.repeat(count)),
        50_000,
        "graph --cluster c.yaml --flows many.jsonl",
        // The bar has begun to fill: what is read is counted.
        ["reading flows [=", "% of ", " left"],
    );
    let manifests = |count| {
        for number in 0..count {
            let text = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n{number}}}}}");
            folder.write(&format!("m/{number}.yaml"), text);
        }
    };
    shows_how_far_it_is(
        &folder,
        manifests,
        2_000,
        "graph --cluster c.yaml --cluster m --flows f.jsonl",
        ["reading manifests [=", " of ", " left"],
    );
}

#[test]
fn a_name_does_nothing_to_a_terminal() {
    let folder = Folder::new();
    let name = "\\u001b]0;owned\\u0007\\u202ex";
    folder.write("bad.json", format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\", \"namespace\": \"shop\"}}, \"spec\": {{\"containers\": []}}, \
         \"status\": {{\"phase\": \"Running\", \"podIPs\": [{{\"ip\": \"198.18.1.9\"}}]}}}}"
    ));
    let flow = r#"{"source": {"ip": "198.18.1.9"}, "destination": {"namespace": "shop", "pod": "db-0"}, "port": 22, "protocol": "TCP"}"#;
    folder.write("f.jsonl", flow);
    let input = ["--cluster", "c.yaml", "--cluster", "bad.json", "--flows", "f.jsonl"];
    for (command, form) in [
        ("graph", &[][..]),
        ("graph", &["-o", "json"]),
        ("audit", &[]),
        ("audit", &["-o", "json"]),
        ("export", &["-o", "json"]),
        ("synthesize", &[]),
    ] {
        let ran = folder.run(&[&[command][..], &input, form].concat());
        let all = format!("{}{}", ran.out, ran.err);
        assert!(all.contains("owned"), "{command}: {all:?}");
        assert!(!all.contains(['\u{1b}', '\u{7}']), "{command}: {all:?}");
        // YAML holds a name as it is, and escapes what would be an instruction.
        assert!(
            command == "synthesize" || !all.contains('\u{202e}'),
            "{command}: {all:?}"
        );
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let folder = Folder::new();
    let ran = folder.run(&["man", "--out", "man"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let page = |name: &str| std::fs::read_to_string(folder.at("man").join(name)).unwrap();
    assert!(page("nanoseg.1").contains(".TH"));
    for (name, words) in [
        ("nanoseg-audit.1", ["\\fBnanoseg audit\\fR", "flows"]),
        ("nanoseg-violations.1", ["\\fBnanoseg violations\\fR", "NAMESPACE"]),
    ] {
        for word in words {
            assert!(page(name).contains(word), "{name}: {word}: {}", page(name));
        }
    }
    assert!(
        !folder.at("man/nanoseg-probe-pod.1").exists(),
        "what nobody types has none"
    );
    assert_eq!(
        ran.out.lines().count(),
        std::fs::read_dir(folder.at("man")).unwrap().count()
    );
}
