# Runtimes to use as they are, or to extend: `forge.extend forge.runtimes."python-3.11" { … }`.
{
  architecture,
  debian,
  formation,
  python,
}:
let
  version = "1.0.0";

  java =
    number: suite:
    formation {
      name = "openjdk-${number}";
      inherit version;
      description = "OpenJDK ${number} of Debian ${suite}, to compile and to run";
      layers = [
        (debian {
          inherit suite;
          packages = [
            "openjdk-${number}-jdk-headless"
            "ca-certificates-java"
          ];
        })
      ];
      environment.JAVA_HOME = "/usr/lib/jvm/java-${number}-openjdk-${architecture}";
      command = [
        "java"
        "-version"
      ];
      test = [
        "sh"
        "-euc"
        "cd /tmp; echo 'class T { public static void main(String[] a) { System.out.println(Runtime.version()); } }' > T.java; javac T.java; java T"
      ];
      labels = {
        "forge.type" = "java";
        "forge.memory.minimum" = "256M";
        "forge.memory.recommended" = "1G";
      };
    };
in
{
  "python-3.11" = formation {
    name = "python-3.11";
    inherit version;
    description = "Python 3.11 of Debian bookworm";
    layers = [
      (debian {
        suite = "bookworm";
        packages = [
          "ca-certificates"
          "python3"
        ];
      })
    ];
    environment.PYTHONUNBUFFERED = "1";
    command = [ "python3" ];
    test = [
      "python3"
      "-c"
      "import json, sqlite3, ssl, sys; assert sys.version_info[:2] == (3, 11); print(sys.version)"
    ];
    labels = {
      "forge.type" = "python";
      "forge.memory.minimum" = "64M";
      "forge.memory.recommended" = "256M";
    };
  };

  "python-3.11-ml" = formation {
    name = "python-3.11-ml";
    inherit version;
    description = "Python 3.11 with numpy, scipy, pandas, scikit-learn and matplotlib";
    layers = [
      (debian {
        suite = "bookworm";
        packages = [
          "ca-certificates"
          "libgomp1"
          "python3"
        ];
      })
      (python {
        requirements = [
          "matplotlib"
          "numpy"
          "pandas"
          "scikit-learn"
          "scipy"
        ];
      })
    ];
    environment = {
      MPLBACKEND = "Agg";
      PYTHONUNBUFFERED = "1";
    };
    command = [ "python3" ];
    test = [
      "python3"
      "-c"
      "import numpy, scipy, pandas, sklearn, matplotlib; from sklearn.linear_model import LinearRegression as L; assert abs(L().fit([[1],[2]], [2,4]).predict([[3]])[0] - 6) < 1e-6; print('numpy', numpy.__version__, 'scikit-learn', sklearn.__version__)"
    ];
    labels = {
      "forge.type" = "python";
      "forge.memory.minimum" = "512M";
      "forge.memory.recommended" = "2G";
    };
  };

  "openjdk-17" = java "17" "bookworm";
  "openjdk-21" = java "21" "trixie";

  "nodejs-20" = formation {
    name = "nodejs-20";
    inherit version;
    description = "Node.js 20 of Debian trixie";
    layers = [
      (debian {
        suite = "trixie";
        packages = [
          "ca-certificates"
          "nodejs"
        ];
      })
    ];
    environment.NODE_ENV = "production";
    command = [ "node" ];
    test = [
      "node"
      "-e"
      "if (process.versions.node.split('.')[0] != 20) process.exit(1); console.log(process.version)"
    ];
    labels = {
      "forge.type" = "node";
      "forge.memory.minimum" = "128M";
      "forge.memory.recommended" = "512M";
    };
  };
}
