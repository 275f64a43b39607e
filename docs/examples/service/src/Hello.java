/** Says hello, and which Java it is. */
public class Hello {
    public static void main(String[] arguments) {
        System.out.println("hello from Java " + Runtime.version().feature());
    }
}
