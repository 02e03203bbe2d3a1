import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.tools.ToolProvider;
import org.codehaus.plexus.classworlds.launcher.Launcher;

/**
 * Maven, started before there is anything to build: it builds a project of its own until somebody asks, then what it is
 * asked for, once, and ends.
 *
 * <p>Sent into the sandbox as a file, and started as a source. Whoever connects to the socket sends Maven's arguments, a
 * zero byte after each and one more at the end, and gets what Maven prints, and a last line: a zero byte and the exit
 * code. Maven runs as its own start would have it run, with the system's properties as they were before: only what the
 * virtual machine has loaded and compiled is left of the project of its own.
 */
final class ReadyMaven {
    private static final int ROUNDS = 3;
    /** As many managed versions as a framework's bill of materials has, and as many libraries as a small program. */
    private static final int MANAGED = 300, LIBRARIES = 20;

    private static final List<String> PHASES =
            List.of("process-resources", "compile", "process-test-resources", "test-compile", "test", "package");

    private final Path place;
    private final Path home;
    private final Launcher launcher = new Launcher();
    private final Method maven;

    private ReadyMaven(Path place) throws Exception {
        this.place = place;
        home = Path.of(System.getProperty("maven.home"));
        launcher.setSystemClassLoader(ClassLoader.getSystemClassLoader());
        try (InputStream settings = Files.newInputStream(home.resolve("bin/m2.conf"))) {
            launcher.configure(settings);
        }
        // Not `main`, which writes past System.out.
        maven = launcher.getMainClass().getMethod("doMain", String[].class, launcher.getWorld().getClass());
        Thread.currentThread().setContextClassLoader(launcher.getMainRealm());
    }

    public static void main(String[] arguments) throws Exception {
        Path place = Path.of(arguments[0]);
        try (ServerSocketChannel door = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            door.bind(UnixDomainSocketAddress.of(place.resolve("maven.sock")));
            door.configureBlocking(false);
            ReadyMaven ready = new ReadyMaven(place);
            SocketChannel caller = ready.warmUp(door);
            if (caller == null) {
                door.configureBlocking(true);
                caller = door.accept();
            }
            System.exit(ready.serve(caller));
        }
    }

    /** Builds a project of its own, until it has been done often enough or somebody asks. */
    private SocketChannel warmUp(ServerSocketChannel door) throws Exception {
        PrintStream out = System.out, err = System.err;
        Properties before = (Properties) System.getProperties().clone();
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(System.out);
        try {
            write();
            SocketChannel caller = door.accept();
            for (int round = 0; round < ROUNDS && caller == null; round++) {
                System.setProperty("maven.multiModuleProjectDirectory", place.toString());
                run("--batch-mode", "--no-transfer-progress", "-Dstyle.color=never", "--offline",
                        "-Dmaven.repo.local=" + place.resolve("repository"),
                        "--file", place.resolve("project/pom.xml").toString(), "package");
                System.setProperties((Properties) before.clone());
                caller = door.accept();
            }
            return caller;
        } finally {
            System.setProperties(before);
            System.setOut(out);
            System.setErr(err);
        }
    }

    private int serve(SocketChannel caller) throws Exception {
        String[] arguments = read(Channels.newInputStream(caller));
        OutputStream way = Channels.newOutputStream(caller);
        PrintStream shown = new PrintStream(new BufferedOutputStream(way), true, StandardCharsets.UTF_8);
        System.setOut(shown);
        System.setErr(shown);
        int code = run(arguments);
        shown.flush();
        way.write(("\0" + code + "\n").getBytes(StandardCharsets.UTF_8));
        return code;
    }

    private int run(String... arguments) throws Exception {
        return (Integer) maven.invoke(null, arguments, launcher.getWorld());
    }

    private static String[] read(InputStream source) throws IOException {
        List<String> words = new ArrayList<>();
        ByteBuffer word = ByteBuffer.allocate(1 << 16);
        for (int letter = source.read(); ; letter = source.read()) {
            if (letter < 0) {
                throw new IOException("The arguments end early.");
            }
            if (letter > 0) {
                word.put((byte) letter);
            } else if (word.position() == 0) {
                return words.toArray(String[]::new);
            } else {
                words.add(new String(word.array(), 0, word.position(), StandardCharsets.UTF_8));
                word.clear();
            }
        }
    }

    /** Writes the project, its parent, its libraries and its plugin, as an index would have them. */
    private void write() throws Exception {
        pom("warm", "parent", "pom", """
                <properties><level>17</level></properties>
                <dependencyManagement><dependencies><dependency><groupId>warm</groupId><artifactId>bom</artifactId>
                  <version>1</version><type>pom</type><scope>import</scope></dependency></dependencies></dependencyManagement>
                <build><pluginManagement><plugins><plugin><groupId>warm</groupId><artifactId>plugin</artifactId>
                  <version>1</version><configuration><level>${level}</level></configuration></plugin></plugins>
                </pluginManagement></build>
                """);
        String managed = Stream.iterate(0, number -> number + 1).limit(MANAGED)
                .map(number -> dependency("warm", "library" + number, "${revision}")).collect(Collectors.joining());
        pom("warm", "bom", "pom", "<properties><revision>1</revision></properties><dependencyManagement><dependencies>"
                + managed + "</dependencies></dependencyManagement>");
        for (int number = 0; number < LIBRARIES; number++) {
            String needs = number == 0 ? "" : dependency("warm", "library" + (number - 1), "1");
            jar(pom("warm", "library" + number, "jar", "<dependencies>" + needs + "</dependencies>"), null);
        }
        // Maven adds this one to plugins that do not name it.
        jar(pom("org.codehaus.plexus", "plexus-utils", "jar", ""), null);
        Path plugin = pom("warm", "plugin", "maven-plugin", "<dependencies>" + dependency("warm", "library5", "1")
                + dependency("org.codehaus.plexus", "plexus-utils", "1") + "</dependencies>");
        Path classes = place.resolve("classes");
        write(classes.resolve("META-INF/maven/plugin.xml"), DESCRIPTOR);
        Path source = place.resolve("source/warm/Goal.java");
        write(source, GOAL);
        for (int round = 0; round < ROUNDS; round++) {
            compile(source, classes);
        }
        jar(plugin, classes);
        String executions = PHASES.stream().map(phase -> "<execution><id>" + phase + "</id><phase>" + phase + "</phase>"
                + "<goals><goal>goal</goal></goals><configuration><words><word>${project.version}</word></words>"
                + "<table><a>b</a></table></configuration></execution>").collect(Collectors.joining());
        write(place.resolve("project/pom.xml"), project("<parent><groupId>warm</groupId><artifactId>parent</artifactId>"
                + "<version>1</version><relativePath/></parent><artifactId>project</artifactId><packaging>pom</packaging>"
                + "<dependencies>" + dependency("warm", "library" + (LIBRARIES - 1), "") + "</dependencies>"
                + "<build><plugins><plugin><groupId>warm</groupId><artifactId>plugin</artifactId><executions>"
                + executions + "</executions></plugin></plugins></build>"));
    }

    private void compile(Path source, Path classes) throws IOException {
        try (Stream<Path> jars = Files.list(home.resolve("lib"))) {
            String path = jars.map(Path::toString).filter(name -> name.endsWith(".jar")).sorted()
                    .collect(Collectors.joining(":"));
            ToolProvider.getSystemJavaCompiler().run(null, OutputStream.nullOutputStream(), OutputStream.nullOutputStream(),
                    "-g", "-parameters", "--release", "17", "-cp", path, "-d", classes.toString(), source.toString());
        }
    }

    /** Writes a pom.xml into the index; returns where its jar belongs. */
    private Path pom(String group, String name, String packaging, String rest) throws IOException {
        Path folder = place.resolve("repository").resolve(group.replace('.', '/')).resolve(name).resolve("1");
        write(folder.resolve(name + "-1.pom"), project("<groupId>" + group + "</groupId><artifactId>" + name
                + "</artifactId><version>1</version><packaging>" + packaging + "</packaging>" + rest));
        return folder.resolve(name + "-1.jar");
    }

    private static String project(String inside) {
        return "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>" + inside + "</project>";
    }

    private static String dependency(String group, String name, String version) {
        String said = version.isEmpty() ? "" : "<version>" + version + "</version>";
        return "<dependency><groupId>" + group + "</groupId><artifactId>" + name + "</artifactId>" + said + "</dependency>";
    }

    private static void jar(Path target, Path classes) throws IOException {
        List<Path> files = List.of();
        if (classes != null) {
            try (Stream<Path> all = Files.walk(classes)) {
                files = all.filter(Files::isRegularFile).sorted().toList();
            }
        }
        try (JarOutputStream jar = new JarOutputStream(Files.newOutputStream(target))) {
            jar.putNextEntry(new JarEntry("META-INF/"));
            for (Path file : files) {
                jar.putNextEntry(new JarEntry(classes.relativize(file).toString()));
                jar.write(Files.readAllBytes(file));
            }
        }
    }

    private static void write(Path path, String text) throws IOException {
        Files.createDirectories(path.getParent());
        Files.writeString(path, text);
    }

    private static final String DESCRIPTOR = """
            <plugin><name>plugin</name><groupId>warm</groupId><artifactId>plugin</artifactId><version>1</version>
            <goalPrefix>warm</goalPrefix><mojos><mojo><goal>goal</goal><description>warm</description>
            <implementation>warm.Goal</implementation><language>java</language>
            <instantiationStrategy>per-lookup</instantiationStrategy><executionStrategy>once-per-session</executionStrategy>
            <requiresDependencyResolution>compile+runtime</requiresDependencyResolution>
            <requiresProject>true</requiresProject><threadSafe>true</threadSafe><parameters>
            <parameter><name>level</name><type>java.lang.String</type><required>true</required></parameter>
            <parameter><name>folder</name><type>java.io.File</type><required>true</required></parameter>
            <parameter><name>words</name><type>java.util.List</type></parameter>
            <parameter><name>table</name><type>java.util.Map</type></parameter>
            <parameter><name>project</name><type>org.apache.maven.project.MavenProject</type></parameter>
            <parameter><name>session</name><type>org.apache.maven.execution.MavenSession</type></parameter>
            </parameters><configuration>
            <folder implementation="java.io.File" default-value="${project.build.directory}"/>
            <project implementation="org.apache.maven.project.MavenProject" default-value="${project}"/>
            <session implementation="org.apache.maven.execution.MavenSession" default-value="${session}"/>
            </configuration></mojo></mojos><dependencies/></plugin>
            """;

    /** A bit of everything that the language has: what the compiler has done once, it does faster. */
    private static final String GOAL = """
            package warm;

            import java.io.File;
            import java.util.*;
            import java.util.function.*;
            import java.util.stream.*;
            import org.apache.maven.execution.MavenSession;
            import org.apache.maven.plugin.AbstractMojo;
            import org.apache.maven.project.MavenProject;

            public class Goal extends AbstractMojo {
                record Pair<A extends Comparable<A>, B>(A first, B second) implements Comparable<Pair<A, B>> {
                    public int compareTo(Pair<A, B> other) {
                        return first.compareTo(other.first);
                    }
                }

                sealed interface Shape permits Circle, Square {}

                record Circle(double radius) implements Shape {}

                record Square(double side) implements Shape {}

                @Deprecated
                enum Colour {
                    RED {
                        @Override
                        String shown() {
                            return "r";
                        }
                    },
                    GREEN;

                    String shown() {
                        return name();
                    }
                }

                private String level;
                private File folder;
                private List<String> words;
                private Map<String, String> table;
                private MavenProject project;
                private MavenSession session;

                @Override
                public void execute() {
                    Map<String, List<Pair<String, Integer>>> found = Stream.of("a", "bb", "cc")
                            .map(word -> new Pair<>(word, word.length()))
                            .sorted(Comparator.reverseOrder())
                            .collect(Collectors.groupingBy(Pair::first, TreeMap::new, Collectors.toList()));
                    Shape shape = new Circle(1);
                    double area = shape instanceof Circle circle ? circle.radius() * 3 : 0;
                    Function<Integer, Supplier<String>> late = number -> () -> switch (number) {
                        case 1 -> "one";
                        case 2 -> {
                            String text = "t";
                            yield text + "wo";
                        }
                        default -> number + "!";
                    };
                    try (var scanner = new Scanner("x y")) {
                        while (scanner.hasNext()) {
                            table.merge(scanner.next(), level, String::concat);
                        }
                    } catch (IllegalStateException | UnsupportedOperationException error) {
                        getLog().warn(error);
                    }
                    for (Colour colour : Colour.values()) {
                        getLog().info(colour.shown() + area + late.apply(2).get() + found + project.getArtifactId() + words);
                    }
                    var counter = new Object() {
                        int count = 0;

                        <T> T same(T value) {
                            count++;
                            return value;
                        }
                    };
                    counter.same(session);
                    int[][] grid = new int[2][3];
                    grid[1][2] += counter.count;
                    StringBuilder text = new StringBuilder(folder.getName());
                    for (int i = 0, j = grid.length; i < j; i++) {
                        text.append(i).append(Arrays.toString(grid[i]));
                    }
                    Optional.of(text).map(Object::toString).filter(said -> !said.isEmpty()).ifPresent(getLog()::info);
                }
            }
            """;
}
